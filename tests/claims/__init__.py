"""Claims that cross the packages: theory, agents and transformers agree; no bit moves by accident."""
