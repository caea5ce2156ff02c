"""What people and programs do with a shop's database, whatever the engine: each visit is a script of steps.

Every deck of visits holds each story once, so that also short streams have something to find: a burst of failed
logins, a dump of a sensitive table, a migration, new privileges, a bulk load, somebody who turns auditing off.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from shipper.generate.engine import FAULTS, Engine, Fault, Instance, Session, Statement, Step

DATABASE = "shop"

_NAMES = ("O'Brien", "Łukasz Żółć", "田中 太郎", "Zoë 🚚", r"C:\temp\new", 'Said "hi"', "Müller\nSöhne", "José", "Ann")
_PRODUCTS = ("desk", "lamp", "chair", "šálek", "茶", "100% wool", "a=b & c<d>")
_ATTACKERS = ("203.0.113.9", "198.51.100.77", "2001:db8::bad:1")
_GUESSES = ("admin", "root", "sa", "postgres", "app", "oracle", "test")

Script = Iterator[Step]


class Workload:
    """An endless supply of visits to the database of one engine."""

    def __init__(self, engine: Engine, instances: Sequence[Instance], rng: random.Random) -> None:
        self._engine = engine
        self._rng = rng
        self._writers = [one for one in instances if one.writer]
        self._readers = [one for one in instances if not one.writer] or self._writers
        self._deck: list[Callable[[], Script]] = []

    def visit(self, *, night: bool) -> Script:
        """The next visit. By night the shop's customers sleep, and what is odd stands out."""
        if not self._deck:
            shoppers = 6 if night else 16
            self._deck = [self._shop] * shoppers + [self._report] * 5 + [self._service] * 4 + [self._proxy] * 2
            self._deck += [self._guess, self._dump, self._migrate, self._grant, self._bulk, self._cover_tracks]
            self._rng.shuffle(self._deck)
        return self._deck.pop()()

    # Who visits

    def _shop(self) -> Script:
        return self._visit(self._session("app", "shop-api", "10.0.4.", 8), self._purchases())

    def _report(self) -> Script:
        session = self._session("reporting", "Metabase", "10.0.5.", 3, reader=True)
        return self._visit(session, (self._look() for _ in range(self._rng.randint(2, 8))))

    def _service(self) -> Script:
        engine = self._engine
        session = self._session(engine.service_user, engine.service_application, "localhost", 0, local=True)
        statement = Statement("SELECT", "read", engine.service_query, rows=1)
        return self._visit(session, [statement] * self._rng.randint(1, 3))

    def _proxy(self) -> Script:
        session = self._session(self._engine.service_remote_user, "RDS Proxy", "10.0.9.", 2, reader=True)
        return self._visit(session, [Statement("SELECT", "read", "SELECT 1", rows=1)])

    def _guess(self) -> Script:
        """A burst of failed logins; now and then one guess is right, and the table of cards leaves the house."""
        rng = self._rng
        host = rng.choice(_ATTACKERS)
        for _ in range(rng.randint(6, 24)):
            session = self._session(rng.choice(_GUESSES), "sqlmap", host, 0)
            yield Step(session, "refused", took=rng.randint(800, 3_000))
        if rng.random() < 0.2:
            yield from self._visit(self._session("app", "", host, 0), [self._everything("cards")])

    def _dump(self) -> Script:
        session = self._session("dba_jane", self._engine.shell, "10.0.7.", 2)
        tables = self._rng.sample(("customers", "cards", "employees", "payments"), 2)
        return self._visit(session, [self._everything(table) for table in tables])

    def _migrate(self) -> Script:
        return self._visit(self._session("migrations", "flyway", "10.0.6.", 1), self._schema_changes())

    def _grant(self) -> Script:
        engine, rng = self._engine, self._rng
        user = f"temp_{rng.randrange(16**4):04x}"
        statements = [
            engine.create_user(user),
            engine.grant("SELECT", rng.choice(("orders", "customers")), user),
            engine.grant("UPDATE", "payments", user),
        ]
        if rng.random() < 0.3:
            statements.append(engine.make_admin(user))
        return self._visit(self._session("dba_jane", "admin-console", "10.0.7.", 2), statements)

    def _bulk(self) -> Script:
        rng = self._rng
        statements = [self._engine.load("products", rng.randint(10_000, 200_000))]
        statements += [self._long_insert() for _ in range(rng.randint(2, 6))]
        return self._visit(self._session("batch", "nightly-import", "10.0.6.", 1), statements)

    def _cover_tracks(self) -> Script:
        session = self._session("contractor", "", "10.0.8.", 4)
        return self._visit(session, [self._engine.blind(), self._everything("cards")])

    # What they do

    def _purchases(self) -> Iterator[Statement]:
        rng = self._rng
        for _ in range(rng.randint(2, 10)):
            dice = rng.random()
            if dice < 0.30:
                yield self._by_key()
            elif dice < 0.60:
                yield self._look()
            elif dice < 0.75:
                yield self._rename()
            elif dice < 0.80:
                yield self._engine.call("order_total", rng.randrange(10**6))
            elif dice < 0.84:
                yield self._mistake()
            else:
                yield from self._purchase()

    def _by_key(self) -> Statement:
        key = str(self._rng.randrange(10**6))
        text = f"SELECT id, name, email FROM customers WHERE id = {self._engine.mark(1)}"
        return Statement("SELECT", "read", text, ("customers",), (key,), rows=1)

    def _look(self) -> Statement:
        rng, quote = self._rng, self._engine.quote
        if rng.random() < 0.5:
            text = (
                "SELECT o.id, c.name\n  FROM orders o JOIN customers c ON c.id = o.customer_id\n"
                f" WHERE c.name = {quote(rng.choice(_NAMES))} AND o.total > {rng.randrange(5_000)}"
            )
            return Statement("SELECT", "read", text, ("orders", "customers"), rows=rng.randrange(50))
        text = self._engine.first("id, name, price", "products", rng.randint(1, 200))
        return Statement("SELECT", "read", text, ("products",), rows=rng.randint(1, 200))

    def _rename(self) -> Statement:
        rng = self._rng
        name = self._engine.quote(rng.choice(_NAMES))
        text = f"UPDATE customers SET name = {name} WHERE id = {rng.randrange(10**6)}"
        return Statement("UPDATE", "write", text, ("customers",), rows=1)

    def _purchase(self) -> Iterator[Statement]:
        rng, mark = self._rng, self._engine.mark
        order = str(rng.randrange(10**9))
        yield self._engine.begin()
        yield Statement(
            "INSERT",
            "write",
            f"INSERT INTO orders (id, customer_id) VALUES ({mark(1)}, {mark(2)})",
            ("orders",),
            (order, str(rng.randrange(10**6))),
            rows=1,
        )
        yield Statement(
            "INSERT",
            "write",
            f"INSERT INTO order_items (order_id, product, note) VALUES ({mark(1)}, {mark(2)}, {mark(3)})",
            ("order_items",),
            (order, rng.choice(_PRODUCTS), rng.choice(_NAMES)),
            rows=1,
        )
        end = "COMMIT" if rng.random() < 0.9 else "ROLLBACK"
        yield Statement(end, "misc", end)

    def _mistake(self) -> Statement:
        fault: Fault = self._rng.choice(FAULTS)
        table = "ordres" if fault == "no_table" else "orders"
        if fault == "syntax":
            return Statement("SELECT", "read", "SELEC id FROM orders", (), fault=fault)
        if fault in ("no_table", "denied", "timeout"):
            return Statement("SELECT", "read", f"SELECT count(*) FROM {table}", (table,), fault=fault)
        text = f"INSERT INTO {table} (id) VALUES ({self._rng.randrange(10**6)})"
        return Statement("INSERT", "write", text, (table,), fault=fault)

    def _everything(self, table: str) -> Statement:
        rows = self._rng.randint(50_000, 5_000_000)
        return Statement("SELECT", "read", f"SELECT * FROM {table}", (table,), rows=rows)

    def _schema_changes(self) -> Iterator[Statement]:
        rng = self._rng
        table = f"returns_{rng.randrange(16**4):04x}"
        yield Statement(
            "CREATE TABLE", "ddl", f"CREATE TABLE {table} (id int PRIMARY KEY, note varchar(200))", (table,)
        )
        yield Statement("ALTER TABLE", "ddl", f"ALTER TABLE {table} ADD reason varchar(40)", (table,))
        index = f"{table}_reason"
        yield Statement(
            "CREATE INDEX", "ddl", f"CREATE INDEX {index} ON {table} (reason)", (index,), object_type="INDEX"
        )
        if rng.random() < 0.5:
            yield Statement("DROP TABLE", "ddl", f"DROP TABLE {table}", (table,))

    def _long_insert(self) -> Statement:
        """Random enough that gzip leaves more than 4 096 bytes: several frames where the engine's are that long."""
        rng = self._rng
        rows = [
            f"({rng.randrange(10**9)}, {self._engine.quote(f'{rng.getrandbits(512):0128x}')})"
            for _ in range(rng.randint(90, 160))
        ]
        text = "INSERT INTO product_images (product_id, digest) VALUES\n" + ",\n".join(rows)
        return Statement("INSERT", "write", text, ("product_images",), rows=len(rows))

    def _visit(self, session: Session, statements: Iterator[Statement] | Sequence[Statement]) -> Script:
        rng = self._rng
        yield Step(session, "login", took=rng.randint(500, 9_000))
        for statement in statements:
            yield Step(
                session, "statement", statement, took=int(rng.expovariate(1 / 4_000)) + 40 + statement.rows // 10
            )
        if rng.random() < 0.95:
            yield Step(session, "logout")

    def _session(
        self, user: str, application: str, host: str, hosts: int, *, reader: bool = False, local: bool = False
    ) -> Session:
        """``host`` is a whole address, or begins one where ``hosts`` says how many there are."""
        rng, engine = self._rng, self._engine
        instance = rng.choice(self._readers if reader else self._writers)
        return Session(
            instance=instance,
            user=user,
            application=application,
            host=f"{host}{10 + rng.randrange(hosts)}" if hosts else host,
            port=rng.randint(32_768, 60_999),
            database=DATABASE,
            number=engine.next(f"session {instance.id}", start=1_003),
            pid=rng.randint(400, 32_767),
            local=local,
        )
