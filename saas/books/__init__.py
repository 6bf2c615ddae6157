"""The books: whether ledger, payments and bucket agree, and reports for accountants."""
