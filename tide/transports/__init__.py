"""The ways an exchange travels: HTTP, and in memory for tests."""
