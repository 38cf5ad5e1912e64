import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('offers', '0006_maintenance'),
    ]

    operations = [
        migrations.CreateModel(
            name='OfferPrice',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField()),
                ('before', models.DecimalField(decimal_places=6, max_digits=12)),
                ('price_per_hour', models.DecimalField(decimal_places=6, max_digits=12)),
                ('offer', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='prices', to='offers.offer')),
            ],
            options={
                'indexes': [models.Index(fields=['offer', '-at'], name='offer_price_newest'), models.Index(fields=['at'], name='offer_price_by_time')],
            },
        ),
    ]
