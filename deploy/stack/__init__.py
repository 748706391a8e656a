"""The real parts on this machine, all on 127.0.0.1: S3, PostgreSQL, Kafka, MLflow, Spark, Dagster's three processes, metrics.

    make stack-install     fetch what is missing, by package name; write .stack/env
    make stack             start, and return when every part answers        [PARTS="s3 postgres"]
    make stack-status      which part answers, and what was started again and why
    make stack-env         what a shell needs to use them: eval "$(make -s stack-env)"
    make stack-down        stop what was started, by its process ids

One module a part: what it needs before it starts, how it is asked whether it answers, and how it is fetched. `parts.py` lists
them, `environment.py` writes and reads their settings, `install.py` fetches them, `launcher.py` starts and stops them. How a
process is started is one line of `deploy/Procfile`; `supervisor.py` runs it and starts it again, `state.py` is what it reports.
Data and logs are below `.stack/` (or `STACK_HOME`), programs below `.stack/tools` (or `STACK_TOOLS`). Standard library only:
this runs in a Python that has nothing but the package itself.
"""
