"""Who clients are: passwords, tokens, logins that upstreams accept, and what each of them may do."""
