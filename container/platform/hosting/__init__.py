"""One multi-model container's SageMaker side: what the platform does around it on an instance.

    boto3 -> front -> fleet -> instance -> contract -> container
                       |         `-> disk: downloads and unpacks below the instance's root
                       `-> figures: the six metrics

Rule: the container is known by its contract only, so any multi-model container can stand there.
"""
