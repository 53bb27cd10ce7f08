"""Tables × laws: `cases` holds a row per public object, the test files hold the laws that run over the rows."""
