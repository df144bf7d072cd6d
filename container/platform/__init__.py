"""SageMaker's side of a multi-model endpoint, on this machine: what the platform does around our container.

    boto3 -> front -> fleet -> instance -> contract -> container
                       |         `-> disk: downloads and unpacks below the instance's root
                       `-> figures: the six metrics

Rule: the container is known by its contract only, so any multi-model container can stand there.
"""
