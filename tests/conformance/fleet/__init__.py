"""A package, unlike the other folders of tests, so that its servers end with it: fixtures of scope `package`."""
