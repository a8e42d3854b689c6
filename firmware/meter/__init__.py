"""The meter: tasks, journal, judging and link."""
