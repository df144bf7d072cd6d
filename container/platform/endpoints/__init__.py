"""Models, endpoint configs and endpoints: made, updated, invoked and deleted as SageMaker does it.

    models, configs            what is written down once and never changes
    endpoints -> variants      what runs: instances, weights, who gets a call
         `-> deployments       how an update goes: green beside blue, shifts, bakes, alarms, back again
    containers                 real processes, one for each instance

Rule: what takes the platform's time waits on its clock; what a container does takes real time.
"""
