"""The guide's agent: it administers the users table, and must ask before it drops it."""
import os

import psycopg
from agents import Agent, function_tool


def database():
    # Read when the tool is called and not at import: the process that wakes this agent may point it to another branch.
    return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)


@function_tool
def add_user(name: str) -> str:
    """Add a user to the users table."""
    with database() as connection:
        connection.execute("INSERT INTO users (name) VALUES (%s)", [name])
    return f"Added {name}."


@function_tool(needs_approval=True)
def drop_users_table() -> str:
    """Drop the users table. Destructive."""
    with database() as connection:
        connection.execute("DROP TABLE users")
    return "Dropped the users table."


@function_tool
def list_users() -> str:
    """List the names of all users."""
    with database() as connection:
        return ", ".join(name for (name,) in connection.execute("SELECT name FROM users ORDER BY id"))


agent = Agent(name="DB Admin", instructions="You administer a Postgres database.", tools=[add_user, drop_users_table, list_users])
