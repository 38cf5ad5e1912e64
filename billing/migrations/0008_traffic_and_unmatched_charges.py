from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0007_segment_running"),
    ]

    operations = [
        migrations.AddField(
            model_name="providercharge",
            name="traffic_booked",
            field=models.DecimalField(db_default=0, decimal_places=6, default=0, max_digits=18),
        ),
        migrations.AddField(
            model_name="providercharge",
            name="traffic_hour",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddIndex(
            model_name="providercharge",
            index=models.Index(
                condition=models.Q(("rental_id__isnull", True)),
                fields=["provider", "fetched_at"],
                name="provider_charge_unmatched",
            ),
        ),
        migrations.AddIndex(
            model_name="providercharge",
            index=models.Index(
                condition=models.Q(("rental_id__isnull", True)),
                fields=["provider", "source"],
                name="provider_charge_nobodys",
            ),
        ),
        migrations.AddIndex(
            model_name="providercharge",
            index=models.Index(
                condition=models.Q(
                    ("rental_id__isnull", False), models.Q(("traffic", models.F("traffic_booked")), _negated=True)
                ),
                fields=["provider"],
                name="provider_charge_traffic",
            ),
        ),
    ]
