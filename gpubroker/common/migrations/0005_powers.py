from django.db import migrations


class Migration(migrations.Migration):
    """The console's three powers; the groups that have them are kept by gpubroker.common.roles after each migration."""

    dependencies = [
        ("common", "0004_provider_breaker"),
    ]

    operations = [
        migrations.CreateModel(
            name="Power",
            fields=[],
            options={
                "permissions": (
                    ("operate_machines", "Operate machines: end, extend, rekey, sweep"),
                    ("manage_money", "Manage money: budgets, statements, charges"),
                    ("manage_access", "Manage access: keys, webhooks"),
                ),
                "proxy": True,
                "default_permissions": (),
                "indexes": [],
                "constraints": [],
            },
            bases=("common.fact",),
        ),
    ]
