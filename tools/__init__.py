"""The command line `gridwitness` and the tools around it."""
