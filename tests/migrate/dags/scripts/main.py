"""The script that the job of ``astro_operators`` runs."""

import ray


@ray.remote
def greeting():
    return "hello from a worker"


ray.init()
print(ray.get(greeting.remote()))
