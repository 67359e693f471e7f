"""The shop's database: as large as one ticket needs, read by look-ups, written by endings."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from domains.customer_service.policy_desk.model import AGES, RULES

Tables = dict[str, list[list[Any]]]
"""Rows of each table, as plain JSON."""

_SCHEMA = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, tier TEXT, credit REAL);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER, status TEXT, age TEXT, delivery TEXT);
CREATE TABLE items (id INTEGER PRIMARY KEY, purchase INTEGER, name TEXT, price REAL);
CREATE TABLE payments (id INTEGER PRIMARY KEY, purchase INTEGER, kind TEXT, amount REAL);
CREATE TABLE tickets (id INTEGER PRIMARY KEY, purchase INTEGER, status TEXT);
"""
_TABLES = {"customers": 4, "orders": 5, "items": 4, "payments": 4, "tickets": 3}  # and how many columns

_MINE = 1  # the ticket, and the order and the customer that it is about

# What an ending writes, beside the status of the ticket.
_WRITES = {
    "refund_money": "INSERT INTO payments (purchase, kind, amount) SELECT purchase, 'refund', -price FROM items WHERE purchase = ?",
    "store_credit": """UPDATE customers SET credit = credit + (SELECT price FROM items WHERE purchase = ?1)
                       WHERE id = (SELECT customer FROM orders WHERE id = ?1)""",
    "send_replacement": "INSERT INTO items (purchase, name, price) SELECT purchase, name, 0 FROM items WHERE purchase = ?",
    "waive_fee": """INSERT INTO payments (purchase, kind, amount) SELECT purchase, 'waiver', -amount FROM payments
                    WHERE kind IN ('delivery', 'handling') AND purchase = ? ORDER BY id DESC LIMIT 1""",
}


@dataclass(frozen=True)
class Ticket:
    """What is true of an episode, the whole policy included."""

    intent: str
    price: int  # 0 small, 1 large
    mood: int  # to begin with
    policy: Mapping[str, str]
    identity: bool  # whether the writer holds the account
    honest: bool  # whether the story is true
    age: str  # of the delivery
    member: bool
    swap: bool

    def facts(self) -> dict[str, bool]:
        """What the policy engine asks for (see `due`)."""
        timed = self.intent in ("return", "damaged")
        inside = AGES.index(self.age) <= RULES["window"].index(self.policy["window"])
        order = inside if timed else self.honest
        return {"identity": self.identity, "order": order, "customer": self.member, "payment": self.honest, "reason": self.swap, "photo": self.honest}


def stock(ticket: Ticket, names: tuple[str, str], goods: tuple[str, str], price: float, fee: float) -> Tables:
    """The rows of a ticket's shop: the customer and a bystander, an order each, what they bought and paid."""
    true_of = ticket.intent if ticket.honest else ""
    status, delivery = "lost" if true_of == "missing" else "delivered", "late" if true_of == "late" else "on_time"
    paid = [[1, _MINE, "purchase", price], [2, _MINE, "delivery", fee], [3, 2, "purchase", price]]
    if true_of in ("double", "fee"):
        paid.append([4, _MINE, *(("purchase", price) if true_of == "double" else ("handling", fee))])
    return {
        "customers": [[_MINE, names[0], "member" if ticket.member else "guest", 0.0], [2, names[1], "guest", 0.0]],
        "orders": [[_MINE, _MINE, status, ticket.age, delivery], [2, 2, "delivered", "fresh", "on_time"]],
        "items": [[1, _MINE, goods[0], price], [2, 2, goods[1], price]],
        "payments": paid,
        "tickets": [[_MINE, _MINE, "open"]],
    }


class Shop:
    """A SQLite database in memory."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.executescript(_SCHEMA)

    def load(self, tables: Tables) -> None:
        """Replaces everything."""
        for table, columns in _TABLES.items():
            self._db.execute(f"DELETE FROM {table}")
            self._db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})", tables[table])

    def tables(self) -> Tables:
        """All rows."""
        return {table: [list(row) for row in self._db.execute(f"SELECT * FROM {table} ORDER BY id")] for table in _TABLES}

    def read(self, record: str, intent: str) -> tuple[str, str]:
        """Topic and value that a look-up finds; of an order and its payments, what bears on the intent."""
        if record == "customer":
            return "tier", self._value("SELECT tier FROM customers WHERE id = ?")
        if record == "payment":
            if intent == "fee":
                return "fee", "charged" if self._value("SELECT count(*) FROM payments WHERE kind = 'handling' AND purchase = ?") else "none"
            return "payment", "twice" if self._value("SELECT count(*) FROM payments WHERE kind = 'purchase' AND purchase = ?") > 1 else "once"
        topic, column = {"return": ("age", "age"), "damaged": ("age", "age"), "late": ("delivery", "delivery")}.get(intent, ("parcel", "status"))
        return topic, self._value(f"SELECT {column} FROM orders WHERE id = ?")

    def end(self, ending: str) -> None:
        """Carries out an ending."""
        if ending in _WRITES:
            self._db.execute(_WRITES[ending], (_MINE,))
        self._db.execute("UPDATE tickets SET status = ? WHERE id = ?", (ending, _MINE))

    def after(self, ending: str) -> Tables:
        """All rows as an ending would leave them; nothing is kept of it."""
        self._db.execute("SAVEPOINT before")
        self.end(ending)
        tables = self.tables()
        self._db.execute("ROLLBACK TO before")
        self._db.execute("RELEASE before")
        return tables

    def _value(self, query: str) -> Any:
        return self._db.execute(query, (_MINE,)).fetchone()[0]
