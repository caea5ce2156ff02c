"""RDS for Oracle's events, envelope version 1.3.

Source: Amazon RDS User Guide, "Audit log contents and examples for database activity streams", and Oracle's
``UNIFIED_AUDIT_TRAIL`` view, from which the fields come. ``objectType`` holds the object's schema; times have no
offset and are UTC. Assumed, for want of a published message: the encryption suite and frame length, ``type`` on every
event, and the form of a bind value (as in ``SQL_BINDS``).
"""

from __future__ import annotations

from typing import ClassVar

from shipper.generate.engine import Engine, Fault, Fields, Session, Statement, Step, stamp

_SCHEMA = "SHOP"
_NO_TRANSACTION = "0" * 16
#: ``RETURN_CODE``: the number of the ORA error.
_FAULTS: dict[Fault, int] = {
    "no_table": 942,
    "duplicate": 1,
    "denied": 1031,
    "syntax": 900,
    "timeout": 1013,
    "deadlock": 60,
}
_WRONG_PASSWORD = 1017
#: Google's Gson, html-safe, writes these so; the documentation's Oracle examples have ``\u003d``.
_HTML_SAFE = {b"=": rb"\u003d", b"<": rb"\u003c", b">": rb"\u003e", b"&": rb"\u0026", b"'": rb"\u0027"}


class Oracle(Engine):
    """Suite and frame length are those of Aurora PostgreSQL: an assumption."""

    name: ClassVar[str] = "oracle"
    version: ClassVar[str] = "1.3"
    suite: ClassVar[int] = 0x0178
    frame_length: ClassVar[int] = 4096
    clustered: ClassVar[bool] = False
    service_user: ClassVar[str] = "RDSADMIN"
    service_remote_user: ClassVar[str] = "RDSSEC"
    service_application: ClassVar[str] = "JDBC Thin Client"
    service_query: ClassVar[str] = "SELECT open_mode FROM v$database"
    shell: ClassVar[str] = "SQL*Plus"

    def encode(self, encoded: bytes) -> bytes:
        # All of these stand inside strings only: JSON's own syntax has none of them.
        for plain, safe in _HTML_SAFE.items():
            encoded = encoded.replace(plain, safe)
        return encoded

    def events(self, step: Step, at: int) -> list[Fields]:
        session, statement = step.session, step.statement
        session.statements += 1
        if step.action == "login":
            return [self._event(session, at, "LOGON")]
        if step.action == "logout":
            return [self._event(session, at, "LOGOFF")]
        if statement is None:
            event = self._event(session, at, "LOGON")
            event["exitCode"] = _WRONG_PASSWORD
            return [event]
        if statement.verb == "SET TRANSACTION":
            session.transaction = self.rng.getrandbits(63) | 1
        events = [self._statement(session, statement, table, at) for table in statement.tables or (None,)]
        if statement.verb in ("COMMIT", "ROLLBACK"):
            session.transaction = 0
        return events

    def _statement(self, session: Session, statement: Statement, table: str | None, at: int) -> Fields:
        event = self._event(session, at, statement.verb)
        event["commandText"] = statement.text
        event["paramList"] = tuple(
            f"#{number}({len(value)}):{value}" for number, value in enumerate(statement.parameters, 1)
        )
        if table is not None:
            event["objectName"] = table.upper()
            event["objectType"] = _SCHEMA
        if statement.fault:
            event["exitCode"] = _FAULTS[statement.fault]
        return event

    def _event(self, session: Session, at: int, command: str) -> Fields:
        user = session.user.upper()
        return {
            "class": "Standard",
            "clientApplication": session.application or None,
            "command": command,
            "commandText": None,
            "dbid": "1559200000",
            "databaseName": "ORCL",
            "dbProtocol": "oracle",
            "dbUserName": user,
            "endTime": None,
            "errorMessage": None,
            "exitCode": 0,
            "logTime": stamp(at),
            "netProtocol": "beq" if session.local else "tcp",
            "objectName": None,
            "objectType": None,
            "paramList": (),
            "pid": session.pid,
            "remoteHost": session.instance.address if session.local else session.host,
            "remotePort": None if session.local else str(session.port),
            "rowCount": None,
            "serverHost": session.instance.address,
            "serverType": "oracle",
            "serverVersion": "19.0.0.0.ru-2020-01.rur-2020-01.r1.EE.3",
            "serviceName": "oracle-ee",
            "sessionId": 987_654_321 + session.number,
            "startTime": None,
            "statementId": session.statements,
            "substatementId": None,
            "transactionId": f"{session.transaction:016X}" if session.transaction else _NO_TRANSACTION,
            "engineNativeAuditFields": self._native(session, user) if self.native else {},
            "type": "record",
        }

    def _native(self, session: Session, user: str) -> Fields:
        return {
            "OS_USERNAME": "rdsdb" if session.local else "svc",
            "USERHOST": session.instance.name if session.local else session.host,
            "TERMINAL": None if session.local else "unknown",
            "CURRENT_USER": user,
            "UNIFIED_AUDIT_POLICIES": "ORA_SECURECONFIG, SHOP_AUDIT",
            "AUTHENTICATION_TYPE": "(TYPE=(DATABASE));",
            "INSTANCE_ID": 1,
            "ENTRY_ID": session.statements,
            "SCN": self.next("scn", start=5_124_715),
            "TARGET_USER": None,
        }

    def mark(self, number: int) -> str:
        return f":{number}"

    def first(self, columns: str, table: str, rows: int) -> str:
        return f"SELECT {columns} FROM {table} ORDER BY 1 FETCH FIRST {rows} ROWS ONLY"

    def begin(self) -> Statement:
        return Statement("SET TRANSACTION", "misc", "SET TRANSACTION READ WRITE")

    def call(self, routine: str, argument: int) -> Statement:
        return Statement("EXECUTE", "function", f"BEGIN shop.{routine}({argument}); END;", (routine,))

    def load(self, table: str, rows: int) -> Statement:
        text = f"INSERT /*+ APPEND */ INTO {table} SELECT * FROM {table}_external"
        return Statement("INSERT", "write", text, (table,), rows=rows)

    def create_user(self, user: str) -> Statement:
        # Unified auditing writes a star for the password.
        return Statement("CREATE USER", "role", f"CREATE USER {user} IDENTIFIED BY *")

    def grant(self, privilege: str, table: str, user: str) -> Statement:
        return Statement("GRANT", "role", f"GRANT {privilege} ON {table} TO {user}", (table,))

    def make_admin(self, user: str) -> Statement:
        return Statement("GRANT", "role", f"GRANT DBA TO {user}")

    def blind(self) -> Statement:
        return Statement("NOAUDIT", "misc", "NOAUDIT POLICY SHOP_AUDIT", fault="denied")
