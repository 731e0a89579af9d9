"""The contract kit: run with pytest, it tries everything that a plug-in promises.

::

    pytest --pyargs lightft.contracts                        # all that lightft brings along
    pytest --pyargs lightft.contracts --plugin my-package    # all that an installed distribution declares
    pytest --pyargs lightft.contracts --plugin my-adapter    # one plug-in by its registered name
    pytest --pyargs lightft.contracts --plugin all           # whatever is installed

It needs pytest, which lightft itself does not.
"""
