"""The rest of the loop on one machine: sealed releases, a server, devices as processes, two rollouts.

1. `commands`  runs the command line as a user does; every command that was run is part of the story
2. `releases`  three bundles of one product: fp32, the chosen variant, and one made slow on purpose (`detour`)
3. `server`    keys, signed repository and the fleet server
4. `devices`   agents, and the application on each that asks for inferences
5. `story`     what happens, in order
6. `page`      the story as a page
"""
