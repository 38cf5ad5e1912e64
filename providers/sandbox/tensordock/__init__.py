"""The TensorDock face: its HTTP wire as described in the TensorDock contract, onto the sandbox's engine.

``stock`` is its market (hostnodes at locations), which no other face sees; its accounts, machines and bills are in
the same ledger as everybody's.
"""
