"""Places where a bundle becomes a service. Each target is a module with the same five verbs.

- ``store(bundle, space)`` puts a verified copy of a bundle into a space and returns what is stored there. Storing the
  same bundle again changes nothing: its version is the digest of its manifest.
- ``deploy(bundle, space, name)`` stores the bundle, makes it callable, waits until it answers, and returns a
  deployment with ``name``, ``url`` (where there is one) and the other three verbs as methods. Used in a ``with``
  block, the deployment is deleted at the end.
- ``score(deployment, images)`` sends image files (bytes or paths) and returns a ``medic.task.Prediction``.
- ``status(deployment)`` is one word: ``ready``, ``starting``, ``crashed`` or ``stopped``.
- ``delete(deployment)`` ends it and removes its record. Stored bundles stay unless asked otherwise.

``spaces()`` lists the spaces and ``deployments(space)`` what runs in one.
"""
