"""A trained model on windows and on whole videos."""
