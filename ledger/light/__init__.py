"""Light verification: headers of a CometBFT chain believed by their validators' signatures.

A control centre that holds a genesis follows the chain with a few hundred bytes a step and believes
no node: ``types`` are the signed objects and their hashes, ``verify`` the rules, ``client`` follows
a chain over nodes that it does not trust (SPEC 18).
"""
