"""What runs on a host, and how it is sent there: `runner` and `relay` travel as source, `message` frames them."""
