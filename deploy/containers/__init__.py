"""Images and containers of the lakehouse, with podman or docker, whichever is there.

    make image-tools       podman and what it needs, from Debian's packages; only where it is asked for
    make image             the images of deploy/Dockerfile, their sizes, and what is in them (SBOM)      [BASE=debian]
    make compose-up        the services of deploy/compose.yaml; returns when every one is healthy        [NETWORK=host]
    make compose-down      stop them; data stays in the volumes

`engine.py` finds the program and what this machine makes it need, `image.py` builds, `debian.py` builds what else comes from a
registry, `compose.py` writes settings and passwords and starts the services. `entrypoint.sh`, `dagster.yaml` and `workspace.yaml`
are part of the image. Standard library only, as `deploy/stack/`. What was built and written is below `.stack/containers/`.
"""
