"""The exact belief of a token position: the posterior, and the noise of what it hears."""
