"""What every worker answers over HTTP."""
