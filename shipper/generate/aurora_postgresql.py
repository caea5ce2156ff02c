"""Aurora PostgreSQL's events, envelope version 1.1.

Source: Amazon Aurora User Guide, "Audit log contents and examples for database activity streams"; what documentation
and examples disagree on follows the examples (``paramList`` an array, ``remotePort`` and ``sessionId`` strings).
"""

from __future__ import annotations

from typing import ClassVar

from shipper.generate.engine import Engine, Fault, Fields, Session, Statement, Step, stamp

_CLASSES = {"read": "READ", "write": "WRITE", "ddl": "DDL", "role": "ROLE", "function": "FUNCTION", "misc": "MISC"}

#: SQLSTATE and message (PostgreSQL documentation, appendix A).
_FAULTS: dict[Fault, tuple[str, str]] = {
    "no_table": ("42P01", 'relation "{table}" does not exist'),
    "duplicate": ("23505", 'duplicate key value violates unique constraint "{table}_pkey"'),
    "denied": ("42501", "permission denied for table {table}"),
    "syntax": ("42601", 'syntax error at or near "SELEC"'),
    "timeout": ("57014", "canceling statement due to statement timeout"),
    "deadlock": ("40P01", "deadlock detected"),
}


class AuroraPostgresql(Engine):
    """Suite and frame length as in a published sample of Aurora PostgreSQL 14.6."""

    name: ClassVar[str] = "aurora-postgresql"
    version: ClassVar[str] = "1.1"
    suite: ClassVar[int] = 0x0178
    frame_length: ClassVar[int] = 4096
    clustered: ClassVar[bool] = True
    service_user: ClassVar[str] = "rdsadmin"
    service_application: ClassVar[str] = "PostgreSQL JDBC Driver"
    service_query: ClassVar[str] = "SELECT value FROM rds_heartbeat2"
    shell: ClassVar[str] = "psql"

    def events(self, step: Step, at: int) -> list[Fields]:
        session, statement = step.session, step.statement
        session.statements += 1
        if step.action == "login":
            return [self._event(session, at, step.took, "CONNECT", "MISC")]
        if step.action == "logout":
            return [self._event(session, at, 0, "DISCONNECT", "MISC")]
        if statement is None:
            event = self._event(session, at, step.took, "AUTH FAILURE", "MISC")
            event["exitCode"] = "28P01"
            event["errorMessage"] = f'password authentication failed for user "{session.user}"'
            return [event]
        return self._statement(session, statement, at, step.took)

    def _statement(self, session: Session, statement: Statement, at: int, took: int) -> list[Fields]:
        events = []
        for number, table in enumerate(statement.tables or (None,), 1):
            event = self._event(session, at, took, statement.verb, _CLASSES[statement.kind], number)
            event["commandText"] = statement.text
            event["paramList"] = statement.parameters
            # Only what is returned is counted: 0 for INSERT and UPDATE.
            event["rowCount"] = statement.rows if statement.kind == "read" and not statement.fault else 0
            if table is not None:
                event["objectName"] = f"public.{table}"
                event["objectType"] = statement.object_type
            if statement.fault:
                code, message = _FAULTS[statement.fault]
                event["exitCode"] = code
                event["errorMessage"] = message.format(table=table)
                event["rowCount"] = None
            events.append(event)
        return events

    def _event(self, session: Session, at: int, took: int, command: str, class_: str, number: int = 1) -> Fields:
        return {
            "startTime": stamp(at - took) + "+00",
            "logTime": stamp(at) + "+00",
            "statementId": session.statements,
            "substatementId": number,
            "objectType": None,
            "command": command,
            "objectName": None,
            "databaseName": session.database,
            "dbUserName": session.user,
            "remoteHost": session.host,
            "remotePort": str(session.port),
            "sessionId": f"{(session.opened or at) // 1_000_000:x}.{session.pid:x}",
            "rowCount": None,
            "commandText": None,
            "paramList": (),
            "pid": session.pid,
            "clientApplication": session.application,
            "exitCode": None,
            "class": class_,
            "serverVersion": "14.6.1",
            "serverType": "PostgreSQL",
            "serviceName": "Amazon Aurora PostgreSQL-Compatible edition",
            "serverHost": session.instance.address,
            "netProtocol": "TCP",
            "dbProtocol": "Postgres 3.0",
            "type": "record",
            "errorMessage": None,
        }

    def mark(self, number: int) -> str:
        return f"${number}"

    def call(self, routine: str, argument: int) -> Statement:
        text = f"SELECT {routine}({argument})"
        return Statement("SELECT", "function", text, (routine,), rows=1, object_type="FUNCTION")

    def load(self, table: str, rows: int) -> Statement:
        return Statement("COPY", "write", f"COPY {table} FROM STDIN WITH (FORMAT csv)", (table,), rows=rows)

    def create_user(self, user: str) -> Statement:
        # pgaudit cuts a statement behind the word PASSWORD.
        return Statement("CREATE ROLE", "role", f"CREATE ROLE {user} WITH LOGIN PASSWORD <REDACTED>")

    def grant(self, privilege: str, table: str, user: str) -> Statement:
        return Statement("GRANT", "role", f"GRANT {privilege} ON {table} TO {user}", (table,))

    def make_admin(self, user: str) -> Statement:
        return Statement("GRANT ROLE", "role", f"GRANT rds_superuser TO {user}")

    def blind(self) -> Statement:
        return Statement("SET", "misc", "SET pgaudit.log = 'none'")
