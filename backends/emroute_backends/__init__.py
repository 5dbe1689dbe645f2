"""The array libraries that emroute ships plug-ins for; one module each, found by entry point."""
