"""The loops of the Gaussian law of a field; `agents.inference.gaussian` says what they compute."""
