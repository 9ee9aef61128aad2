"""Other hosts through Ray: their drivers from afar, and the service that runs them there.

On each host a service (`service`) runs the drivers of that host and owns its engines, images and logs. Ray
grants places on hosts and carries the calls of the driver port (`calls`), by an actor on each host
(`carrier`) and a child process here (`link`), because Ray ends a process whose head stays lost. Requests,
tokens and signs of life go another way, over TLS to the host's relay (`relay`, `contact`), so that no death
of a Ray process costs an answer. Nothing in here is imported unless a fleet names hosts.
"""
