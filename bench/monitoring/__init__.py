"""What a look at all hosts costs: on a lab, and over a thousand simulated workers."""
