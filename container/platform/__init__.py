"""SageMaker and its neighbours, played on this machine: an address that boto3 cannot tell from the real one.

    boto3 -> service -> endpoints, components, scaling, jobs, registry -> hosting -> containers
                `-> moto: s3, cloudwatch, events, ... behind the same address

Rule: all that waits does so on one clock, which may run faster; what has no source in README.md's table is not played.
"""
