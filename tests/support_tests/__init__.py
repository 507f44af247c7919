"""Quick tests of the support code itself: a tool that lies makes every test that uses it lie."""
