"""What a user has, what it went to, and what a text would cost."""
