"""How the report's numbers, tables and figures are made."""
