"""The life of a session through every fault, on every provider and every way to it.

:mod:`tests.lifecycle.faces` is the table of providers: another one is another row, and every test here runs on it.
:mod:`tests.lifecycle.life` is the world that a test plays in. After each test its rules are held against the
marketplace's own ledger: nothing alive that nobody wants, nothing touched that is not ours, and the bill agrees.
"""
