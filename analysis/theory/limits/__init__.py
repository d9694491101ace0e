"""What no policy can beat: the capacity of its messages, and the examples within its reach."""
