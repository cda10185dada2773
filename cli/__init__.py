"""Those who talk to people: the menu, the one-shot commands, the demo."""
