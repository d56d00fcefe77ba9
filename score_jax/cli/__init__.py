"""What the command lines share: flags, errors for people, a run as input, several processes."""
