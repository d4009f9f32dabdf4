"""Renders Envoy's bootstrap from the policies of the contract and the topology of a deployment.

The entry is `render`: the stack calls `render_bootstrap`, operators run `python -m
wayfare_envoy.render`.
"""
