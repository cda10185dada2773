"""How the state behaves as it grows: what is measured, by processes of their own."""
