"""The address: requests read and checked, operations called, answers written, by botocore's descriptions of the services.

    server -> desk -> reading -> a room's operation -> writing
                `-> moto, for the services that are not ours

Rule: what botocore's description of a service does not know is refused, in a request and in an answer.
"""
