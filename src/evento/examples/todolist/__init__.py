"""The TodoList application: users keep lists of at most five todos, and who did what is on record.

Read it in the order in which it was built::

    api/            what the application says: commands, events, queries and views, by domain
    aggregate.py    the rules
    model.py        the tables of the read model
    projector.py    from events to the read model
    projection.py   from the read model to the answers of queries
    invoker.py      what the outside may ask for
    web.py          the REST endpoints; errors.py beside it: which error is which status
    saga.py         from a finished list to its registration in erp.py, the bridge to the ERP system
    observer.py     tells people what they have checked, by notification.py, the bridge to the notification system
    latency.py      how long these two outside systems, which are simulated, take
    realtime.py     tells who looks at lists when one has changed, over the web by sse.py
    sequence.py     the numbers that identify lists, in a strict order
    config.py       the bundle that holds it all together
    app.py          the application for any ASGI server
    demo.py         runs it with generated traffic (``evento demo``)
"""
