"""RDS for SQL Server's events, envelope version 1.4.

Source: Amazon RDS User Guide, "Audit log contents and examples for database activity streams", and Microsoft's
``sys.fn_get_audit_file``, from which the fields come. ``exitCode`` is 1 for success and 0 for failure, and but for
logins it tells of the permission check alone. Assumed, for want of a published message: the encryption suite and
frame length, and where a long statement is split.
"""

from __future__ import annotations

from typing import ClassVar

from shipper.generate.engine import Engine, Fields, Session, Statement, Step, stamp

_DATABASE_PRINCIPAL = "dbo"
#: ``sys.fn_get_audit_file`` has ``statement nvarchar(4000)``; what is longer goes on in the next ``sequence_number``.
_STATEMENT_CHARACTERS = 4_000
#: A table is made by altering its schema; transaction control and settings are not object actions.
_ACTIONS = {
    "CREATE TABLE": ("ALTER", "SCHEMA"),
    "ALTER TABLE": ("ALTER", "TABLE"),
    "CREATE INDEX": ("ALTER", "TABLE"),
    "DROP TABLE": ("ALTER", "SCHEMA"),
    "EXECUTE": ("EXECUTE", "STORED PROCEDURE"),
    "BULK INSERT": ("INSERT", "TABLE"),
    "CREATE LOGIN": ("CREATE", "LOGIN"),
    "ALTER SERVER ROLE": ("ADD MEMBER", "SERVER ROLE"),
    "ALTER SERVER AUDIT": ("AUDIT SESSION CHANGED", "SERVER AUDIT"),
    "BEGIN": ("TRANSACTION BEGIN STARTING", "DATABASE"),
    "COMMIT": ("TRANSACTION COMMIT STARTING", "DATABASE"),
    "ROLLBACK": ("TRANSACTION ROLLBACK STARTING", "DATABASE"),
}


class Sqlserver(Engine):
    """Suite and frame length are those of Aurora PostgreSQL: an assumption."""

    name: ClassVar[str] = "sqlserver"
    version: ClassVar[str] = "1.4"
    suite: ClassVar[int] = 0x0178
    frame_length: ClassVar[int] = 4096
    clustered: ClassVar[bool] = False
    service_user: ClassVar[str] = "rdsadmin"
    service_application: ClassVar[str] = "SQLAgent - TSQL JobStep"
    service_query: ClassVar[str] = "SELECT name FROM sys.databases"
    shell: ClassVar[str] = "sqlcmd"

    def events(self, step: Step, at: int) -> list[Fields]:
        session, statement = step.session, step.statement
        if statement is not None:
            return self._statement(session, statement, at)
        client = f"[CLIENT: {self._host(session)}]"
        if step.action == "login":
            text = (
                f"Login succeeded for user '{session.user}'. Connection made using SQL Server authentication. {client}"
            )
            return [self._event(session, at, "LOGIN SUCCEEDED", "LOGIN", text)]
        if step.action == "logout":
            return [self._event(session, at, "LOGOUT", "LOGIN", "")]
        reason = "Reason: Password did not match that for the login provided."
        text = f"Login failed for user '{session.user}'. {reason} {client}"
        event = self._event(session, at, "LOGIN FAILED", "LOGIN", text)
        event["exitCode"] = 0
        event["sessionId"] = 0
        event["databaseName"] = ""
        return [event]

    def _statement(self, session: Session, statement: Statement, at: int) -> list[Fields]:
        action, class_ = _ACTIONS.get(statement.verb, (statement.verb, "TABLE" if statement.tables else "DATABASE"))
        if statement.verb == "BEGIN":
            session.transaction = self.next("transaction", start=4_561_864)
        parts = [
            statement.text[begin : begin + _STATEMENT_CHARACTERS]
            for begin in range(0, len(statement.text), _STATEMENT_CHARACTERS)
        ]
        events: list[Fields] = []
        for table in statement.tables or ("",):
            identity = self._identity()
            for number, part in enumerate(parts, 1):
                event = self._event(session, at, action, class_, part, identity)
                event["substatementId"] = number
                event["objectName"] = _DATABASE_PRINCIPAL if class_ == "SCHEMA" else table
                event["rowCount"] = 0 if statement.fault else statement.rows
                event["exitCode"] = 0 if statement.fault == "denied" else 1
                events.append(event)
        if statement.verb in ("COMMIT", "ROLLBACK"):
            session.transaction = 0
        return events

    def _event(
        self, session: Session, at: int, command: str, class_: str, text: str, identity: str | None = None
    ) -> Fields:
        return {
            "class": class_,
            "clientApplication": session.application,
            "command": command,
            "commandText": text,
            "databaseName": session.database,
            "dbProtocol": "SQLSERVER",
            "dbUserName": session.user,
            "endTime": None,
            "errorMessage": None,
            "exitCode": 1,
            "logTime": f"{stamp(at)}{self.rng.randrange(10)}+00",
            "netProtocol": None,
            "objectName": "",
            "objectType": class_,
            "paramList": None,
            "pid": None,
            "remoteHost": self._host(session),
            "remotePort": None,
            "rowCount": 0,
            "serverHost": session.instance.address,
            "serverType": "SQLSERVER",
            "serverVersion": "15.00.4073.23.v1.R1",
            "serviceName": "sqlserver-ee",
            "sessionId": 51 + session.number % 200,
            "startTime": None,
            "statementId": identity or self._identity(),
            "substatementId": 1,
            "transactionId": str(session.transaction),
            "type": "record",
            "engineNativeAuditFields": self._native(session, class_) if self.native else {},
        }

    def _native(self, session: Session, class_: str) -> Fields:
        return {
            "target_database_principal_id": 0,
            "target_server_principal_id": 0,
            "target_database_principal_name": "",
            "server_principal_id": 2,
            "user_defined_information": "",
            "response_rows": 0,
            "database_principal_name": "" if class_ == "LOGIN" else _DATABASE_PRINCIPAL,
            "target_server_principal_name": "",
            "schema_name": "" if class_ == "LOGIN" else "dbo",
            "is_column_permission": False,
            "object_id": 0,
            "server_instance_name": session.instance.name.upper(),
            "target_server_principal_sid": None,
            "additional_information": _LOGIN_INFORMATION if class_ == "LOGIN" else "",
            "duration_milliseconds": 0,
            "permission_bitmask": "0x00000000000000000000000000000000",
            "data_sensitivity_information": "",
            "session_server_principal_name": session.user,
            "connection_id": f"{self.rng.getrandbits(128):032X}",
            "audit_schema_version": 1,
            "database_principal_id": 0 if class_ == "LOGIN" else 1,
            "server_principal_sid": "0x010500000000000515000000",
            "user_defined_event_id": 0,
            "host_name": self._host(session),
        }

    @staticmethod
    def _host(session: Session) -> str:
        return "local machine" if session.local else session.host

    def _identity(self) -> str:
        """``sequence_group_id``: what the parts of one statement share."""
        return f"0x{self.rng.getrandbits(128):032x}"

    def mark(self, number: int) -> str:
        return f"@P{number}"

    def first(self, columns: str, table: str, rows: int) -> str:
        return f"SELECT TOP ({rows}) {columns} FROM {table} ORDER BY 1"

    def begin(self) -> Statement:
        return Statement("BEGIN", "misc", "BEGIN TRANSACTION")

    def call(self, routine: str, argument: int) -> Statement:
        return Statement("EXECUTE", "function", f"EXEC dbo.{routine} {argument}", (routine,))

    def load(self, table: str, rows: int) -> Statement:
        text = f"BULK INSERT {table} FROM 'D:\\S3\\{table}.csv' WITH (FORMAT = 'CSV')"
        return Statement("BULK INSERT", "write", text, (table,), rows=rows)

    def create_user(self, user: str) -> Statement:
        return Statement("CREATE LOGIN", "role", f"CREATE LOGIN {user} WITH PASSWORD = '******'", (user,))

    def grant(self, privilege: str, table: str, user: str) -> Statement:
        return Statement("GRANT", "role", f"GRANT {privilege} ON {table} TO {user}", (table,))

    def make_admin(self, user: str) -> Statement:
        return Statement("ALTER SERVER ROLE", "role", f"ALTER SERVER ROLE sysadmin ADD MEMBER {user}", ("sysadmin",))

    def blind(self) -> Statement:
        text = "ALTER SERVER AUDIT RDS_DAS_AUDIT WITH (STATE = OFF)"
        return Statement("ALTER SERVER AUDIT", "misc", text, ("RDS_DAS_AUDIT",), fault="denied")


_LOGIN_INFORMATION = (
    '<action_info xmlns="http://schemas.microsoft.com/sqlserver/2008/sqlaudit_data">'
    "<pooled_connection>0</pooled_connection></action_info>"
)
