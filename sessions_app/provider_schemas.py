"""The shapes of what staff sees and changes at the providers, with examples."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from rest_framework import serializers

from gpubroker.common import sshkeys
from gpubroker.common.api import PageQuery, StrictBooleanField, StrictCharField, StrictIntegerField
from sessions_app.serializers import StrictDecimalField

_LONGEST_TEXT = 16_000


class SpanQuery(PageQuery):
    since = serializers.DateTimeField(required=False, help_text="Default: 30 days before `until`")
    until = serializers.DateTimeField(required=False, help_text="Default: now; at most 366 days after `since`")


class CapabilitiesSchema(serializers.Serializer[Any]):
    templates = serializers.BooleanField()
    interruptible = serializers.BooleanField()
    preserve_disk = serializers.BooleanField(help_text="A stopped machine costs its disk alone")
    attach_ssh_key = serializers.BooleanField(help_text="A running machine takes another key")
    custom_image = serializers.BooleanField()
    own_images = serializers.CharField(help_text="Where images are the provider's own: a pattern of their names")
    entrypoint = serializers.BooleanField()
    least_disk_gb = serializers.IntegerField()
    bills_from_order = serializers.BooleanField(help_text="Else from when the machine runs")
    label_length = serializers.IntegerField()
    reboot = serializers.BooleanField()
    logs = serializers.BooleanField()
    price_includes = serializers.ListField(child=serializers.CharField(), help_text="Of gpu, vcpu and ram")


class SweepHealthSchema(serializers.Serializer[Any]):
    last_complete_at = serializers.DateTimeField(allow_null=True, help_text="Null: no complete listing yet")
    next_at = serializers.DateTimeField(allow_null=True)
    failures_in_a_row = serializers.IntegerField()
    last_error = serializers.CharField()
    held_reason = serializers.CharField(help_text="Why the last sweep ended nothing and asks a person")
    machines = serializers.IntegerField(help_text="On the account at the last complete listing")
    ours = serializers.IntegerField(help_text="Of these with this deployment's label")


class BreakerSchema(serializers.Serializer[Any]):
    open = serializers.BooleanField(help_text="Its calls are held because it fails; destroys are not")
    open_until = serializers.DateTimeField(allow_null=True)
    failures_in_a_row = serializers.IntegerField()
    last_error = serializers.CharField()


class OffersHealthSchema(serializers.Serializer[Any]):
    count = serializers.IntegerField()
    last_success_at = serializers.DateTimeField(allow_null=True)
    failures_in_a_row = serializers.IntegerField()


class MaintenanceSchema(serializers.Serializer[Any]):
    since = serializers.DateTimeField()
    reason = serializers.CharField()
    by = serializers.CharField()


class BalanceSchema(serializers.Serializer[Any]):
    credit = serializers.FloatField(help_text="What can still be spent; below zero: in debt")
    currency = serializers.CharField()
    asked_at = serializers.DateTimeField()
    burn_per_hour = serializers.FloatField(help_text="Dollars per hour of all that our meter has running there")
    runway_hours = serializers.FloatField(allow_null=True, help_text="How long the credit lasts; null: nothing runs")


class ProviderSchema(serializers.Serializer[Any]):
    provider = serializers.CharField()
    capabilities = CapabilitiesSchema()
    sweep = SweepHealthSchema()
    breaker = BreakerSchema()
    offers = OffersHealthSchema()
    maintenance = MaintenanceSchema(allow_null=True, help_text="Set by staff: it takes no new session; null: it does")
    balance = BalanceSchema(allow_null=True, help_text="As it was last asked for; null: never")


class ProviderListSchema(serializers.Serializer[Any]):
    providers = ProviderSchema(many=True)
    count = serializers.IntegerField()


class OwnerSchema(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(
        choices=["session", "orphan", "deployment", "unknown"],
        help_text="orphan: our label, and no session has it; deployment: another GPU broker's label; unknown: neither",
    )
    session_id = serializers.CharField(allow_null=True)
    consumer_id = serializers.CharField(allow_null=True)
    deployment = serializers.CharField(allow_null=True)


class InstanceSchema(serializers.Serializer[Any]):
    instance_id = serializers.CharField()
    # "label" is a word of serializers themselves, hence the override below.
    owner = OwnerSchema()
    phase = serializers.CharField()
    status = serializers.CharField(help_text="The vendor's own word")
    status_message = serializers.CharField()
    gpu_name = serializers.CharField()
    gpu_count = serializers.IntegerField()
    machine_id = serializers.CharField()
    gpu_price_per_hour = serializers.FloatField(allow_null=True)
    storage_price_per_hour = serializers.FloatField(allow_null=True)
    created_at = serializers.DateTimeField(allow_null=True)
    ends_at = serializers.DateTimeField(allow_null=True)

    def get_fields(self) -> dict[str, Any]:
        return with_names(super().get_fields(), "instance_id", {"label": serializers.CharField()})


class InvoiceSchema(serializers.Serializer[Any]):
    invoice_id = serializers.CharField()
    kind = serializers.CharField()
    description = serializers.CharField()
    amount = serializers.FloatField(help_text="Dollars; top-ups negative, as the vendor writes them")
    starts_at = serializers.DateTimeField(allow_null=True)
    ends_at = serializers.DateTimeField(allow_null=True)

    def get_fields(self) -> dict[str, Any]:
        return with_names(super().get_fields(), "kind", {"source": serializers.CharField()})


class ChargeItemSchema(serializers.Serializer[Any]):
    kind = serializers.CharField(help_text="gpu, disk, bwd (download) or bwu (upload)")
    description = serializers.CharField()
    amount = serializers.FloatField()


class ChargeSchema(serializers.Serializer[Any]):
    instance_id = serializers.CharField()
    owner = OwnerSchema()
    description = serializers.CharField()
    amount = serializers.FloatField(help_text="Dollars")
    starts_at = serializers.DateTimeField(allow_null=True)
    ends_at = serializers.DateTimeField(allow_null=True)
    items = ChargeItemSchema(many=True)

    def get_fields(self) -> dict[str, Any]:
        names = {"source": serializers.CharField(), "label": serializers.CharField()}
        return with_names(super().get_fields(), "instance_id", names)


class BidSchema(serializers.Serializer[Any]):
    bid_id = serializers.CharField(help_text="The machine's")
    price_per_hour = serializers.FloatField(allow_null=True)
    instance = InstanceSchema()


class AccountKeySchema(serializers.Serializer[Any]):
    key_id = serializers.CharField()
    public_key = serializers.CharField()
    fingerprint = serializers.CharField(help_text="Empty where the key cannot be read")


class AccountTemplateSchema(serializers.Serializer[Any]):
    template_id = serializers.CharField()
    hash_id = serializers.CharField()
    name = serializers.CharField()
    image = serializers.CharField()
    recommended = serializers.BooleanField(help_text="By the vendor; the others are the account's own")


class HostMachineSchema(serializers.Serializer[Any]):
    machine_id = serializers.CharField()
    hostname = serializers.CharField()
    gpu_name = serializers.CharField()
    gpu_count = serializers.IntegerField()
    price_per_gpu_hour = serializers.FloatField(allow_null=True, help_text="Null: not up for rent")
    min_bid_per_gpu_hour = serializers.FloatField(allow_null=True)
    verified = serializers.BooleanField()


class UserSchema(serializers.Serializer[Any]):
    provider = serializers.CharField()
    user_id = serializers.CharField()
    username = serializers.CharField()
    email = serializers.CharField()
    credit = serializers.FloatField(allow_null=True)
    balance = serializers.FloatField(allow_null=True, help_text="The vendor's other figure: 0 for prepaid accounts")


class ToldBalanceSchema(BalanceSchema):
    provider = serializers.CharField()


class SweepAskedSchema(serializers.Serializer[Any]):
    message = serializers.CharField()
    provider = serializers.CharField()


class ChangedSchema(serializers.Serializer[Any]):
    message = serializers.CharField()
    provider = serializers.CharField()


class TemplateChangedSchema(ChangedSchema):
    template_id = serializers.CharField(help_text="Stays the same")
    hash_id = serializers.CharField(help_text="Changes with every edit")


class AccountKeyBody(serializers.Serializer[Any]):
    public_key = StrictCharField(
        max_length=sshkeys.MAX_PUBLIC_KEY_LENGTH,
        help_text="OpenSSH; machines made from now on accept it",
    )

    def validate_public_key(self, value: str) -> str:
        try:
            return sshkeys.checked_public_key(value)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from None


class TemplateContent(serializers.Serializer[Any]):
    """The vendor's own names and meanings (Vast.ai contract, section 5.1)."""

    tag = StrictCharField(required=False, max_length=128)
    env = StrictCharField(
        required=False, max_length=_LONGEST_TEXT, allow_blank=True, help_text="Docker flags: -e A=1 -p 8000:8000"
    )
    onstart = StrictCharField(required=False, max_length=_LONGEST_TEXT, allow_blank=True)
    args_str = StrictCharField(required=False, max_length=_LONGEST_TEXT, allow_blank=True)
    runtype = serializers.ChoiceField(required=False, choices=["ssh", "jupyter", "args"])
    use_ssh = StrictBooleanField(required=False)
    ssh_direct = StrictBooleanField(required=False)
    extra_filters = serializers.DictField(required=False, help_text='{"field": {"op": value}}, as in a search')
    recommended_disk_space = StrictIntegerField(required=False, min_value=1, max_value=16_000, help_text="GB")
    desc = StrictCharField(required=False, max_length=_LONGEST_TEXT, allow_blank=True)
    private = StrictBooleanField(required=False)


class NewTemplateBody(TemplateContent):
    name = StrictCharField(max_length=200)
    image = StrictCharField(max_length=512)


class TemplateBody(TemplateContent):
    name = StrictCharField(required=False, max_length=200)
    image = StrictCharField(required=False, max_length=512)


def dollars(*, least: str = "0", **more: Any) -> StrictDecimalField:
    return StrictDecimalField(
        max_digits=10,
        decimal_places=4,
        min_value=Decimal(least),
        max_value=Decimal(1000),
        coerce_to_string=False,
        **more,
    )


#: The least that is a price at all.
SOMETHING = "0.0001"


class OfferMachineBody(serializers.Serializer[Any]):
    price_per_gpu_hour = dollars(least=SOMETHING, help_text="Dollars per GPU and hour, on demand")
    min_bid_per_gpu_hour = dollars(
        least=SOMETHING, required=False, help_text="The least that an interruptible renter has to bid"
    )
    storage_price_per_gb_month = dollars(required=False)
    upload_price_per_gb = dollars(required=False)
    download_price_per_gb = dollars(required=False)
    least_gpus = StrictIntegerField(required=False, min_value=1, max_value=64, help_text="Rented out together")


class MachineOfferBody(OfferMachineBody):
    price_per_gpu_hour = dollars(least=SOMETHING, required=False)


def with_names(fields: Any, after: str, more: dict[str, Any]) -> dict[str, Any]:
    """The fields, with those whose names are words of serializers put in behind ``after``."""
    found: dict[str, Any] = {}
    for name, field in fields.items():
        found[name] = field
        if name == after:
            found.update(more)
    return found


def page_schema(name: str, row: type[serializers.Serializer[Any]], **more: Any) -> type[serializers.Serializer[Any]]:
    """``{"provider", <name>: [...], "count", "total"}`` and more."""
    fields = {
        "provider": serializers.CharField(),
        name: row(many=True),
        "count": serializers.IntegerField(help_text="In this answer"),
        "total": serializers.IntegerField(help_text="In all"),
        **more,
    }
    title = f"Provider{''.join(word.title() for word in name.split('_'))}Schema"
    return type(title, (serializers.Serializer,), fields)
