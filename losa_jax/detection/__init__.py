"""From the arrays of a head to detected actions, their loss and scores."""
