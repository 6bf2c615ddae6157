"""Mail to users and to the operator, from an outbox in the database."""
