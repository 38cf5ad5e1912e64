"""One command runs the whole broker: queue, sandbox marketplace, migrations, web, worker and beat as its children.

``run.py`` is the life of the stack, ``child.py`` one process of it, ``output.py`` its logs and the terminal. The
supervisor imports neither Django nor Celery: what it must know of the settings comes from a short-lived child
(``facts.py``), and so does the database work (``prepare.py``).
"""
