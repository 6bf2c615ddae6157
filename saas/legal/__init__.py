"""What the law asks of a service: terms and privacy policy with versions, and reports of misuse."""
