"""Aurora MySQL's events, envelope version 1.2: one MAIN event per statement, and one AUX event per object.

Source: Amazon Aurora User Guide, "Audit log contents and examples for database activity streams", and values that a
public consumer printed from a real stream (2.11.2): ``exitCode``, ``sessionId``, ``transactionId`` and ``remotePort``
are strings, and what is missing is ``""`` more often than ``null``.
"""

from __future__ import annotations

from typing import ClassVar

from shipper.generate.engine import Engine, Fault, Fields, Session, Statement, Step, stamp

#: Error number and message (MySQL 5.7 error reference).
_FAULTS: dict[Fault, tuple[str, str]] = {
    "no_table": ("1146", "Table '{database}.{table}' doesn't exist"),
    "duplicate": ("1062", "Duplicate entry '42' for key 'PRIMARY'"),
    "denied": ("1142", "SELECT command denied to user '{user}'@'{host}' for table '{table}'"),
    "syntax": ("1064", "You have an error in your SQL syntax"),
    "timeout": ("3024", "Query execution was interrupted, maximum statement execution time exceeded"),
    "deadlock": ("1213", "Deadlock found when trying to get lock; try restarting transaction"),
}
_AUXILIARY = {"read": "READ", "write": "WRITE", "ddl": "CREATE"}
_AUXILIARY_DDL = {"ALTER TABLE": "ALTER", "CREATE INDEX": "ALTER", "DROP TABLE": "DROP"}
_ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"})


class AuroraMysql(Engine):
    """Suite (signed), frame length and white space as in a published sample of Aurora MySQL 2.11.2."""

    name: ClassVar[str] = "aurora-mysql"
    version: ClassVar[str] = "1.2"
    suite: ClassVar[int] = 0x0378
    frame_length: ClassVar[int] = 262_144
    spaced: ClassVar[bool] = True
    clustered: ClassVar[bool] = True
    service_user: ClassVar[str] = "rdsadmin"
    service_application: ClassVar[str] = ""
    service_query: ClassVar[str] = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'mysql'"
    shell: ClassVar[str] = "mysql"

    def events(self, step: Step, at: int) -> list[Fields]:
        session, statement = step.session, step.statement
        number = self.next(f"statement {session.instance.id}", start=65_459_278)
        if step.action == "login":
            return [self._main(session, number, at, step.took, "CONNECT")]
        if step.action == "logout":
            return [self._main(session, number, at, 0, "DISCONNECT")]
        if statement is None:
            event = self._main(session, number, at, step.took, "FAILED_CONNECT")
            event["exitCode"] = "1045"
            event["errorMessage"] = f"Access denied for user '{session.user}'@'{session.host}' (using password: YES)"
            event["databaseName"] = ""
            return [event]
        return self._statement(session, statement, number, at, step.took)

    def _statement(self, session: Session, statement: Statement, number: int, at: int, took: int) -> list[Fields]:
        if statement.verb == "BEGIN":
            session.transaction = self.next(f"transaction {session.instance.id}", start=1_640_266)
        main = self._main(session, number, at, took, "QUERY")
        main["commandText"] = statement.text.translate(_ESCAPES)
        main["objectName"] = ",".join(statement.tables)
        main["rowCount"] = 0 if statement.fault else statement.rows
        if statement.verb in ("COMMIT", "ROLLBACK"):
            session.transaction = 0
        if statement.fault:
            code, message = _FAULTS[statement.fault]
            main["exitCode"] = code
            main["errorMessage"] = message.format(
                database=session.database,
                table=",".join(statement.tables),
                user=session.user,
                host=session.host,
            )
            return [main]
        command = _AUXILIARY_DDL.get(statement.verb) or _AUXILIARY.get(statement.kind)
        if command is None:
            return [main]
        events = [self._auxiliary(main, command, table) for table in statement.tables]
        # The documentation says that MAIN comes first, its own example has it last.
        events.insert(self.rng.choice((0, 0, len(events))), main)
        return events

    @staticmethod
    def _auxiliary(main: Fields, command: str, table: str) -> Fields:
        """All of a statement's AUX events share ``substatementId`` 2; only object and command tell them apart."""
        changes: Fields = {
            "command": command,
            "commandText": table,
            "objectName": table,
            "substatementId": 2,
            "exitCode": "",
            "rowCount": 0,
            "class": "AUX",
        }
        return main | changes

    def _main(self, session: Session, number: int, at: int, took: int, command: str) -> Fields:
        return {
            "logTime": stamp(at) + "+00",
            "type": "record",
            "clientApplication": None,
            "pid": session.instance.pid,
            "dbUserName": session.user,
            "databaseName": "" if session.local else session.database,
            "remoteHost": session.host,
            "remotePort": str(session.port),
            "command": command,
            "commandText": "",
            "paramList": None,
            "objectType": "TABLE",
            "objectName": "",
            "statementId": number,
            "substatementId": 1,
            "exitCode": "0",
            "sessionId": str(session.number),
            "rowCount": 0,
            "serverHost": session.instance.name,
            "serverType": "MySQL",
            "serviceName": "Amazon Aurora MySQL",
            "serverVersion": "5.7.mysql_aurora.2.11.2",
            "startTime": stamp(at - took) + "+00",
            # In the sample the end lies a microsecond behind the log's own time.
            "endTime": stamp(at + 1) + "+00",
            "transactionId": str(session.transaction),
            "dbProtocol": "MySQL",
            "netProtocol": "TCP",
            "errorMessage": "",
            "class": "MAIN",
        }

    def mark(self, number: int) -> str:
        return "?"

    def quote(self, text: str) -> str:
        return "'" + text.translate(_ESCAPES) + "'"

    def call(self, routine: str, argument: int) -> Statement:
        return Statement("CALL", "function", f"CALL {routine}({argument})")

    def load(self, table: str, rows: int) -> Statement:
        text = f"LOAD DATA FROM S3 's3://shop-import/{table}.csv' INTO TABLE {table}"
        return Statement("LOAD DATA", "write", text, (table,), rows=rows)

    def create_user(self, user: str) -> Statement:
        digest = f"{self.rng.getrandbits(160):040X}"
        text = f"CREATE USER '{user}'@'%' IDENTIFIED WITH 'mysql_native_password' AS '*{digest}'"
        return Statement("CREATE USER", "role", text)

    def grant(self, privilege: str, table: str, user: str) -> Statement:
        return Statement("GRANT", "role", f"GRANT {privilege} ON shop.{table} TO '{user}'@'%'", (table,))

    def make_admin(self, user: str) -> Statement:
        return Statement("GRANT", "role", f"GRANT ALL PRIVILEGES ON *.* TO '{user}'@'%' WITH GRANT OPTION")

    def blind(self) -> Statement:
        return Statement("SET", "misc", "SET GLOBAL server_audit_logging = 0", fault="denied")
