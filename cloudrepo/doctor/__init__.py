"""What `./cloud doctor` judges: facts in, findings out; nothing here looks at a machine."""
